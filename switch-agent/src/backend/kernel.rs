//! rtnetlink: links, addresses, neighbours, routes, and their changes.
