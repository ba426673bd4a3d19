"""The gated recurrent unit (Cho et al. 2014, arXiv:1406.1078): a baseline without attention, simpler than the LSTM.

The state is as large as makes a layer the size of a Transformer's. Parameters at each depth of the dial, in millions,
with 8,192 tokens:

    depth     2      4      6      8
    gru      1.47   5.45  14.44  30.96
    qwen3    1.48   5.31  13.77  29.89
"""

from gristmill.model.recurrent import recurrent_family

EXPORT = recurrent_family("gru", state_ratio=1.5)
