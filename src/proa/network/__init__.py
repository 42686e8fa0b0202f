"""Networks: addresses, firewall and published ports."""
