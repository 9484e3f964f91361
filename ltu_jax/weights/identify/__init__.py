"""What a file or folder is, in plain words: `describe.describe(path)`."""
