package dbrules

// checkFaults are planted into a copy of the whole tree.
var checkFaults = []fault{}
