//! The code in the chapters of `docs/`, compiled and run with the doctests.

macro_rules! chapters {
    ($($name:ident: $file:literal),* $(,)?) => {
        $(
            #[doc = include_str!(concat!("../../../docs/src/", $file))]
            pub struct $name;
        )*
    };
}

chapters! {
    GettingStarted: "getting-started.md",
    Idea: "idea.md",
    Losses: "losses.md",
    Conventions: "conventions.md",
    ChoosingALoss: "choosing-a-loss.md",
    Results: "results.md",
    Schedules: "schedules.md",
    OwnModel: "own-model.md",
    BeyondOneTeacher: "beyond-one-teacher.md",
    MultiTask: "multi-task.md",
    TeacherCache: "teacher-cache.md",
    Resuming: "resuming.md",
    Data: "data.md",
    Backends: "backends.md",
    Evaluation: "evaluation.md",
    AddingALoss: "adding-a-loss.md",
}
