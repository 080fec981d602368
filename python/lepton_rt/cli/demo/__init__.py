"""`lepton-rt demo`: a small network, trained here, before and after quantisation."""

from lepton_rt.cli.demo.story import run_demo

__all__ = ["run_demo"]
