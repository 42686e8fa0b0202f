"""Bills of materials: what software an image holds, said in SPDX and CycloneDX."""
