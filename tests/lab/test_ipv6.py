"""IPv6 services: their names, their addresses, and the DNS server's own IPv6 address."""

from lab.cases import case
from lab.mesh import Mesh
from lab.programs import service, slice_of

DNS_V6 = "fd00:97::16"


@case(quick=True)
def ipv6_service_by_name():
    """Services with IPv6 addresses on nodes without an IPv6 route, by the DNS server's IPv6 address."""
    with Mesh("none", "none", start=False) as mesh:
        config = mesh.path("cloud.yaml")
        with open(config, "w", encoding="ascii") as f:
            f.write("mesh: {serviceCidrs: [10.96.0.0/12, 'fd00:96::/108']}\n")
        mesh.cloud.extra += ["--config", config]
        mesh.cloud.start()
        for agent in mesh.agents.values():
            agent.join()
            with open(agent.config, "a", encoding="ascii") as f:
                f.write(f"dns: {{listenAddressV6: '{DNS_V6}'}}\n")
            agent.join = lambda agent=agent: agent
        mesh.join_all()
        objects = []
        for name, agent in mesh.agents.items():
            six = f"six-{name[-1]}"
            objects += [service(six, ipFamilyPolicy="SingleStack", ipFamilies=["IPv6"]),
                        slice_of(six, [(agent.node.ip, name)])]
        mesh.cloud.apply(*objects)
        mesh.wait_services(["six-a", "six-b"])

        node = mesh.agent("a").node
        node.ns.resolver(DNS_V6)
        routes = node.run(["ip", "-6", "route", "show", "default"]).stdout
        assert not routes.strip(), f"the node has an IPv6 route: {routes}"
        for letter in ("a", "b"):
            name = f"six-{letter}.default.svc.cluster.local"
            found = node.run(["dig", "+short", f"@{DNS_V6}", name, "AAAA"]).stdout.split()
            assert len(found) == 1 and found[0].startswith("fd00:96::"), f"{name}: {found}"
            result = mesh.client("a", "hello", name)
            assert result["answer"] == f"hello from node-{letter}", result
        lines = [x for x in mesh.agent("a").process.log().splitlines() if "service=default/six-a" in x]
        assert lines and f"src=[{DNS_V6}]" in lines[-1], lines
