//! Containerfiles with the real programs: `kiln` builds them, and buildah builds the same ones from the same base.

mod import;
mod like_buildah;
mod remote;
mod steps;
mod world;
mod wrong;
