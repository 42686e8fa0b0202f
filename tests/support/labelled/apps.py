"""App files with labels: one of each file's services is judged.  None of their images is here."""

from __future__ import annotations

from textwrap import dedent

from tests.support.cases import CONTAINER, VM, Case
from tests.support.labelled.images import KERNEL, PASSING, POWER, PROGRAM, STAYING, TRUST

HOST = "what works on the host is a container"


def app(name: str, service: str, judged: tuple[str, str], why: str, text: str) -> Case:
    """A case; `judged` are label and principle."""
    label, principle = judged
    compose = dedent(text).lstrip()
    return Case(name, "app", label, principle, why, compose=compose, service=service)


CASES = (
    app("app-shop-api", "api", (CONTAINER, PROGRAM), "one of three services, told by variables", """
        services:
          web:
            image: nginx:1.25
            ports: ["80:80"]
            depends_on: [api]
          api:
            image: example/shop-api:${TAG:-4}
            user: "1000"
            environment: {DATABASE_URL: "postgres://shop@db/shop"}
            expose: ["8000"]
            depends_on: {db: {condition: service_healthy}}
          db:
            image: postgres:16
            volumes: ["data:/var/lib/postgresql/data"]
            healthcheck: {test: pg_isready}
        volumes: {data: {}}
        """),
    app("app-shop-database", "db", (CONTAINER, PROGRAM), "a database is one program, too", """
        services:
          api: {image: example/api, depends_on: [db]}
          db:
            image: postgres:16
            volumes: ["data:/var/lib/postgresql/data"]
            healthcheck: {test: ["CMD", "pg_isready"]}
        volumes: {data: {}}
        """),
    app("app-ledger-database", "ledger", (VM, STAYING), "data for years, never changed", """
        services:
          ledger:
            image: postgres:16
            volumes: ["ledger:/var/lib/postgresql/data"]
            labels:
              x-proa-lifetime: years
              x-proa-state: /var/lib/postgresql/data
              x-proa-change: never
        volumes: {ledger: {}}
        """),
    app("app-socket", "portainer", (CONTAINER, HOST), "it manages the host's engine by its socket",
        """
        services:
          portainer:
            image: portainer/portainer-ce
            ports: ["9000:9000"]
            volumes:
              - /var/run/docker.sock:/var/run/docker.sock
              - data:/data
        volumes: {data: {}}
        """),
    app("app-node-exporter", "node", (CONTAINER, HOST), "it looks at the host itself", """
        services:
          prometheus: {image: prom/prometheus}
          node:
            image: prom/node-exporter
            command: ["--path.rootfs=/host"]
            network_mode: host
            pid: host
            volumes: ["/:/host:ro,rslave"]
        """),
    app("app-transcoder", "video", (CONTAINER, HOST), "it works on the host's graphics card", """
        services:
          video:
            image: jellyfin/jellyfin
            devices: ["/dev/dri/renderD128:/dev/dri/renderD128"]
            ports: ["8096:8096"]
        """),
    app("app-docker-in-docker", "runner", (VM, POWER), "an engine inside, privileged", """
        services:
          runner:
            image: docker:dind
            privileged: true
            volumes: ["cache:/var/lib/docker"]
        volumes: {cache: {}}
        """),
    app("app-anchored-privilege", "build", (VM, POWER), "privileged, by an anchor", """
        x-powers: &powers
          privileged: true
          security_opt: ["apparmor:unconfined"]
        services:
          web: {image: nginx}
          build:
            <<: *powers
            build: ./builder
        """),
    app("app-wireguard", "vpn", (VM, KERNEL), "it loads a module of the kernel", """
        services:
          vpn:
            image: linuxserver/wireguard
            cap_add: [NET_ADMIN, SYS_MODULE]
            sysctls: [net.ipv4.conf.all.src_valid_mark=1]
            ports: ["51820:51820/udp"]
        """),
    app("app-search", "search", (VM, KERNEL), "it wants a setting of the whole kernel", """
        services:
          ui: {image: kibana:8.12.0}
          search:
            image: elasticsearch:8.12.0
            sysctls: {vm.max_map_count: 262144}
            ports: ["9200:9200"]
        """),
    app("app-windows", "legacy", (VM, KERNEL), "made for another system", """
        services:
          legacy:
            image: example/legacy
            platform: windows/amd64
            ports: ["8080:80"]
        """),
    app("app-audited", "vault", (VM, KERNEL), "a rule demands a kernel of its own", """
        services:
          vault:
            image: example/vault
            x-proa: {compliance: PCI DSS 2.2.1, trust: own}
        """),
    app("app-plugins", "plugins", (VM, TRUST), "it runs what strangers upload", """
        services:
          web: {image: nginx, ports: ["80:80"]}
          plugins:
            image: example/plugins
            x-proa-trust: untrusted
            deploy: {replicas: 2}
        """),
    app("app-tenants", "notebook", (VM, TRUST), "neighbours do not trust each other", """
        x-proa-trust: untrusted
        services:
          notebook:
            image: jupyter/base-notebook
            labels: ["x-proa-tenants=yes"]
            ports: ["8888:8888"]
        """),
    app("app-sandboxed-off", "trace", (VM, POWER), "its confinement is off, for the kernel's sake",
        """
        services:
          trace:
            image: example/bpf
            cap_add: [SYS_ADMIN, BPF, PERFMON]
            security_opt: ["seccomp:unconfined"]
        """),
    app("app-workers", "worker", (CONTAINER, PASSING), "a dozen of the same, stateless", """
        services:
          queue: {image: redis:7}
          worker:
            image: example/worker
            command: ["work", "--forever"]
            x-proa-state: stateless
            deploy:
              replicas: 12
              resources: {limits: {memory: 64m}}
        """),
    app("app-migration", "migrate", (CONTAINER, PASSING), "it ends before the app begins", """
        services:
          migrate:
            image: example/shop
            command: ["./manage.py", "migrate"]
          shop:
            image: example/shop
            depends_on: {migrate: {condition: service_completed_successfully}}
        """),
)  # fmt: skip
