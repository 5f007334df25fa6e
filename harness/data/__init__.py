"""Images and labels, from files to batches.

`contract` is what a dataset offers; `listing`, `long_tail` and `dev_set` say which images there
are, `copies` which are there twice; `decode` and `decode_many` read them; `pack` and `pack_format`
keep them decoded; `packed`, `unpacked`, `crops`, `mixing` and `transfer` make batches of them;
`dataset` is what the trainer sees; `check` and `download` serve `harness data`.
"""
