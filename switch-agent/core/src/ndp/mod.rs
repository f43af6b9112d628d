//! Neighbor Discovery on the wire: parsing solicitations, building advertisements (RFC 4861 section 4).
