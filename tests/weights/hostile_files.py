"""Hostile and malformed weight files, each built by a function, none of them harmless by luck.

`CORPUS` lists them. A builder gets an empty folder, writes into it and returns the path that a
user would be talked into giving. Code in a pickle makes the file CANARY in that folder.
"""

# in the order of the table; importing a module registers its builders
import hostile_pickles  # noqa: I001
import hostile_headers  # noqa: F401
import hostile_folders
import hostile_binaries
import hostile_corpus

CANARY, CORPUS, Hostile = hostile_corpus.CANARY, hostile_corpus.CORPUS, hostile_corpus.Hostile
harmless, hf_llama = hostile_pickles.harmless, hostile_folders.hf_llama
trained_part, gguf_llama = hostile_folders.trained_part, hostile_binaries.gguf_llama
