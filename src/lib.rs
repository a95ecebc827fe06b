//! Multi-Paxos consensus as a library.
