//! The host's tool and its functions, in one program.

mod cuda;
mod eval;
mod files;
mod fit;
mod grammar;
mod hidden;
mod messages;
mod report;
mod sampling;
mod surprise;
mod tokens;
mod tool;
mod traces;
