"""Records on disk: what a clip is, TFRecord shards written by Beam, their index, reading one."""
