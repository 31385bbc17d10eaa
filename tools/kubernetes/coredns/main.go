// coredns: the cluster's DNS with the few plugins that a cluster of one node needs.
//
// The whole of CoreDNS brings the SDKs of three clouds, which take longer to compile than the rest of it.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() { coremain.Run() }
