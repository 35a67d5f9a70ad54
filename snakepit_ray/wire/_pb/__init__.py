"""Generated from protos/ by `./dev protos`; not edited by hand."""
