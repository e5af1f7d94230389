//! Authorization, from outside: every RPC needs a valid credential, and allows no more than the
//! credential's scopes and organization.

mod credentials;
mod grants;
mod kinds;
mod methods;
mod networks;
mod open;
mod organizations;
mod own;
mod privileges;
mod scopes;
mod widening;
