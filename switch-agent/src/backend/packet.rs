//! AF_PACKET: solicitations in, advertisements out.
