mod fetching;
mod hub_server;
mod names;
mod real;
