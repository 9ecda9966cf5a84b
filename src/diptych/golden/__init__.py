"""Golden losses: the first steps of a training on record, checked again after every change.

    diptych golden record tiny --out golden.json      once, when the training is known to be right
    diptych golden check golden.json                  in CI, after every change

At the recorded place (processor, framework, threads) every bit is compared; elsewhere numbers are
compared within a tolerance whose source the record states. For a training function of your own see
`diptych.testing`.
"""
