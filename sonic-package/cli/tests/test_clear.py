"""`sonic-clear boot-network` against a stand-in for the agent's admin API."""

import json
import os
from unittest import mock

from rig import REPOSITORY, AdminApi, PluginTest, multi_asic


def cleared(port, boots):
    return {"DELETE /v1/ports/{}/timeline".format(port): (200, {"port": port, "forgotten": boots})}


class Timeline(PluginTest):
    command = "clear"

    def serve(self, answers):
        api = AdminApi(os.environ["SWITCH_AGENT_ADMIN_SOCKET"], answers)
        self.addCleanup(api.close)
        return api

    def test_the_past_boots_of_a_port(self):
        self.serve(cleared("Ethernet0", 3))
        self.assertEqual(self.ok("timeline", "Ethernet0"), "Ethernet0: 3 past boots forgotten\n")

    def test_an_alias_is_asked_for_as_it_is(self):
        answer = {"DELETE /v1/ports/Eth1%2F1/timeline": (200, {"port": "Ethernet0", "forgotten": 1})}
        self.serve(answer)
        self.assertEqual(self.ok("timeline", "Eth1/1"), "Ethernet0: 1 past boot forgotten\n")

    def test_every_port_that_has_something_to_forget(self):
        ports = {"/v1/ports": (200, {"ports": [{"port": name} for name in ("Ethernet40", "Ethernet4", "Ethernet0")]})}
        api = self.serve({**ports, **cleared("Ethernet0", 0), **cleared("Ethernet4", 2), **cleared("Ethernet40", 1)})
        output = "Ethernet4: 2 past boots forgotten\nEthernet40: 1 past boot forgotten\n"
        self.assertEqual(self.ok("timeline"), output)
        self.assertEqual(len(api.asked), 4)

    def test_a_port_without_past_boots_is_told_when_asked_for(self):
        self.serve(cleared("Ethernet0", 0))
        self.assertEqual(self.ok("timeline", "Ethernet0"), "Ethernet0: 0 past boots forgotten\n")

    def test_the_agents_own_words_about_a_port_it_does_not_know(self):
        self.serve({})
        self.assertEqual(self.refused("timeline", "Ethernet9"), "Error: no boot port of that name\n")

    def test_no_agent(self):
        message = self.refused("timeline")
        self.assertIn("the agent is not running, or may not be asked (root may)", message)

    def test_an_answer_that_is_none(self):
        self.serve({"DELETE /v1/ports/Ethernet0/timeline": (200, b"<html>")})
        self.assertIn("no answer to be used", self.refused("timeline", "Ethernet0"))

    def test_multi_asic_switches_are_refused(self):
        with mock.patch.object(multi_asic, "asics", 2):
            expected = "Error: boot-network is not available on multi-ASIC switches\n"
            self.assertEqual(self.refused("timeline"), expected)

    def test_the_answers_here_are_of_the_agents_schema(self):
        with open(REPOSITORY / "switch-agent/src/http/openapi.json", encoding="utf-8") as file:
            delete = json.load(file)["paths"]["/v1/ports/{port}/timeline"]["delete"]
        schema = delete["responses"]["200"]["content"]["application/json"]["schema"]
        [(_, answer)] = cleared("Ethernet0", 3).values()
        self.assertEqual(set(answer), set(schema["required"]))
