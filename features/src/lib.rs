//! From a transaction to a row of numbers: who acts, what is in it, what they did before.
//!
//! A [`domain::Transaction`] enters, a [`vector::FeatureVector`] leaves. On the way stand the door ([`door`]: entities, content
//! signals, secrets replaced by tokens), the schema ([`schema`]: what is counted of whom), the state kernel ([`kernel`]: one
//! compact, mergeable blob an entity) and the stores that keep blobs ([`store`]). Nothing here reads a clock or the environment,
//! knows a model or a policy, or speaks gRPC.

pub mod domain;
pub mod door;
pub mod entity;
pub mod event;
pub mod expr;
pub mod file;
pub mod hash;
pub mod kernel;
pub mod schema;
pub mod store;
pub mod time;
pub mod vector;
pub mod yaml;
