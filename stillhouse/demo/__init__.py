"""`stillhouse demo`: the whole job on made-up data and real models, told as it happens."""
