//! Schedules for distillation: temperature, learning rate and loss weights as functions of the step
