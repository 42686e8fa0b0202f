"""The criteria of "Containers vs VMs" (the article this project starts from), by name.  Pure."""

from __future__ import annotations

SCALE = "scale"
PORTABILITY = "portability"
SEMI_PERMANENT = "resources assigned semi-permanently"
CLOUD_NATIVE = "cloud-native apps and microservices"
CI_CD = "DevOps and CI/CD"
SAME_OS = "scalable projects that share an operating system"
MONOLITH = "existing, legacy and single workloads"
RISKY = "separating risky development"
INFRASTRUCTURE = "provisioning infrastructure resources"
OS_INSIDE = "one operating system inside another"

# Name → what the article says of it, in our words.
CRITERIA: dict[str, str] = {
    SCALE: "containers are measured in megabytes, vms in gigabytes",
    PORTABILITY: "a container moves to any host with a fitting kernel; a vm brings its own",
    SEMI_PERMANENT: "resources that stay assigned for long are a vm's",
    CLOUD_NATIVE: "one function or service in each container, hundreds of them together",
    CI_CD: "what is built, changed and moved often and easily is a container's",
    SAME_OS: "many instances over one operating system are containers",
    MONOLITH: "an application that is one large unit, system included, is a vm's",
    RISKY: "what may harm its surroundings is separated by a vm",
    INFRASTRUCTURE: "networks, servers and data themselves are provisioned as vms",
    OS_INSIDE: "another operating system needs a vm to run in",
}
