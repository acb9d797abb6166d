"""Where stores and volumes meet the frameworks that carry them; each module needs the extra of its name."""
