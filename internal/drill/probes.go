package drill

import "github.com/livefire-mesh/livefire/internal/drill/sample"

// Probes are the probe orders of the present attempt: what must be in force from Prechecked until the probes are stopped.
func (m Machine) Probes() []sample.Order { return m.probes() }
