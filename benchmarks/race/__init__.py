"""The race: whole networks in lepton_rt and other CPU runtimes, interleaved. See `__main__`."""
