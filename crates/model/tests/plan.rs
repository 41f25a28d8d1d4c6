//! The planner: what it does in plain cases, and what it keeps whatever happens.

#[path = "plan/cases.rs"]
mod cases;
#[path = "plan/drill.rs"]
mod drill;
#[path = "plan/properties.rs"]
mod properties;
#[path = "plan/scale.rs"]
mod scale;
#[path = "plan/slots.rs"]
mod slots;
#[path = "plan/spares.rs"]
mod spares;
#[path = "plan/world.rs"]
mod world;
