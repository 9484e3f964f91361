"""Audio files by their structure: what they hold, where it lies, and who decodes it."""
