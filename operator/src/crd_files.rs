//! `coffer-operator crds`: the CRDs as YAML. Never talks to a cluster.

use std::io::Write;

use coffer_crds::generate;

use crate::cli::CrdsArgs;

/// Prints the CRDs, or writes them into the chart.
pub(crate) fn write(args: &CrdsArgs) -> anyhow::Result<()> {
    for crd in generate::all() {
        if let Some(directory) = &args.chart {
            std::fs::create_dir_all(directory)?;
            let path = directory.join(generate::chart_file_name(&crd));
            std::fs::write(path, generate::chart_template(&crd)?)?;
        } else {
            write!(std::io::stdout().lock(), "---\n{}", generate::yaml(&crd)?)?;
        }
    }
    Ok(())
}
