//! ResNet students and teachers, image datasets and augmentation for burn-distill
