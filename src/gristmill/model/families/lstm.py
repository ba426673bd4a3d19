"""Long short-term memory (Hochreiter and Schmidhuber 1997): the baseline without attention.

The state is as large as makes a layer the size of a Transformer's. Parameters at each depth of the dial, in millions,
with 8,192 tokens:

    depth     2      4      6      8
    lstm     1.59   5.38  15.35  30.43
    qwen3    1.48   5.31  13.77  29.89
"""

from gristmill.model.recurrent import recurrent_family

EXPORT = recurrent_family("lstm", state_ratio=1.25)
