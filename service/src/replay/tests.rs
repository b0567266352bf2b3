//! Replay of lines and journals: what is read, what is counted, and that threads change nothing.
