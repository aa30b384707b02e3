// Command chart packages the Helm chart of pgamqp.
//
//	chart VERSION CHART FOLDER
//
// It leaves FOLDER/pgamqp-VERSION.tgz, which deploys the image with that version as its tag.
package main

import (
	"fmt"
	"os"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: chart VERSION CHART FOLDER")
		os.Exit(2)
	}
	file, err := pack(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
	fmt.Println(file)
}

// pack writes a version into a chart and packages it.
func pack(version, path, folder string) (file string, err error) {
	c, err := loader.LoadDir(path)
	if err != nil {
		return "", fmt.Errorf("load the chart %s: %w", path, err)
	}
	c.Metadata.Version = version
	c.Metadata.AppVersion = strings.ReplaceAll(version, "+", "-") // as scripts/image.sh names the image
	if err := c.Validate(); err != nil {
		return "", fmt.Errorf("version %s: %w", version, err)
	}
	file, err = chartutil.Save(c, folder)
	if err != nil {
		return "", fmt.Errorf("package the chart: %w", err)
	}
	return file, nil
}
