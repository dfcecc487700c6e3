//! What is promised when jobs fail, backends are down, or there is more to poll than
//! capacity.

mod isolation_bounds;
mod outage;
mod overload;
