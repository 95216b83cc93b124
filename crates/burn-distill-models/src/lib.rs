//! Contracts of burn-distill: Student, Teacher, frozen teachers, ensembles, connectors and seeded data order
