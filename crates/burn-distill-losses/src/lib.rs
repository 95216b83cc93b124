//! Knowledge-distillation losses for Burn: logits, features and relations, with one documented scale
