"""Answering: logit processors, the one compiled decoding loop, and Whisper transcription."""
