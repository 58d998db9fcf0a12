# Numbers through a pipeline of processes.
i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done | sed -u 's/$/ /' | while read -r x; do echo "$x"; done
