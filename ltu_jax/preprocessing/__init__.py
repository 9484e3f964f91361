"""From files to numbers: audio to Whisper's log-mel, text to token ids and labels."""
