//! One suite over all adapters: the ways in which any vendor can answer wrongly.
