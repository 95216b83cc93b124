//! Examples of burn-distill: see the files beside this package.
