//! The server in this process: roles, repeated calls, deadlines, shedding, drain, restart, parity.
