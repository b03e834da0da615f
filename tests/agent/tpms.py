"""The manufacturer of the TPMs that the agent's tests speak to."""

from fixtures.ca import TestCa

CA = TestCa()
