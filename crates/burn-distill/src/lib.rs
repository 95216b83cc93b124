//! Knowledge distillation for the Burn deep-learning framework
