#!/usr/bin/env python3
"""mkimage.py OUT.tar NAME:TAG [SRC=DST ...] [LINK->TARGET ...]

Writes a one-layer OCI image as a tar, which `ctr images import`, `podman load` and `docker load`
take. Needs no daemon and no registry. The same input gives the same bytes: no times, no owners of
this machine, fixed compression.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import tarfile


def add_bytes(tar, name, data, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def layer_tar(items, dirs):
    """The root file system: directories first, then files and links in the order given."""
    out, made = io.BytesIO(), set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        def mkdir(path):
            path = path.strip("/")
            if not path or path in made:
                return
            mkdir(os.path.dirname(path))
            made.add(path)
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755
            tar.addfile(info)
        for path in dirs:
            mkdir(path)
        for item in items:
            if "->" in item:
                link, target = item.split("->")
                mkdir(os.path.dirname(link))
                info = tarfile.TarInfo(link.strip("/"))
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
                tar.addfile(info)
            else:
                source, path = item.split("=")
                mkdir(os.path.dirname(path))
                with open(source, "rb") as file:
                    add_bytes(tar, path.strip("/"), file.read(), 0o755 if os.access(source, os.X_OK) else 0o644)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("name")
    parser.add_argument("items", nargs="*")
    parser.add_argument("--dir", action="append", default=[], help="make a directory (/tmp becomes 1777)")
    parser.add_argument("--entrypoint", default="null", help="JSON list")
    parser.add_argument("--cmd", default="null", help="JSON list")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--user", default="")
    parser.add_argument("--arch", default="amd64")
    options = parser.parse_intermixed_args()

    def digest(data):
        return "sha256:" + hashlib.sha256(data).hexdigest()

    def descriptor(kind, data, **more):
        media = "application/vnd.oci.image." + kind
        return {"mediaType": media, "digest": digest(data), "size": len(data), **more}

    plain = layer_tar(options.items, options.dir)
    layer = gzip.compress(plain, compresslevel=9, mtime=0)
    config = json.dumps({
        "architecture": options.arch, "os": "linux",
        "config": {
            "Env": options.env or ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": json.loads(options.entrypoint), "Cmd": json.loads(options.cmd),
            "User": options.user, "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
    }, sort_keys=True).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config), "layers": [descriptor("layer.v1.tar+gzip", layer)],
    }).encode()
    names = {"io.containerd.image.name": options.name, "org.opencontainers.image.ref.name": options.name}
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor(
        "manifest.v1+json", manifest, annotations=names,
        platform={"architecture": options.arch, "os": "linux"})]}).encode()

    work = options.out + ".new"
    with tarfile.open(work, "w", format=tarfile.GNU_FORMAT) as tar:
        add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add_bytes(tar, "index.json", index)
        for blob in (config, manifest, layer):
            add_bytes(tar, "blobs/sha256/" + digest(blob)[7:], blob)
    os.replace(work, options.out)
    print(f"{options.name}: {len(layer)} bytes compressed")


if __name__ == "__main__":
    main()
