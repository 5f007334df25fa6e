"""Images and labels, from files to batches.

`listing` and `long_tail` say which images there are; `decode` and `decode_many` read them; `pack`
and `pack_format` keep them decoded; `packed` and `crops` make batches of them; `dataset` is what
the trainer sees; `check` and `download` serve `harness data`.
"""
