"""Numbers that papers print, made again by the protocol of their code."""
