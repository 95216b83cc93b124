//! Holds no code: its manifest is the one feature set that tests, doctests, examples and benches share.
