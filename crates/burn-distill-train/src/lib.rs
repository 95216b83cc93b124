//! Objectives, the Distiller and resumable training runs on burn-train
